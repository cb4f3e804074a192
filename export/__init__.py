"""Stageproof export: builds engine files from a checkpoint and checks that they predict as it does."""

if __name__ == "export":  # imported by its short name, in a checkout
    from stageproof.checkout import one_module

    one_module(__name__)
