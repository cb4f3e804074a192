"""Stageproof serving: a bundle where the images are. Imports `runtime`, never training or export."""

if __name__ == "serving":  # imported by its short name, in a checkout
    from stageproof.checkout import one_module

    one_module(__name__)
