"""Stageproof export: checkpoints → a bundle whose every artifact decides as the original does."""

if __name__ == "export":  # the short name, in a checkout
    from stageproof.checkout import one_module

    one_module(__name__)
