"""The software bill of materials of a bundle or an environment (CycloneDX), and the SOUP list of a bundle."""
