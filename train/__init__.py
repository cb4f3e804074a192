"""Train a classifier of brain-MRI slices, and find out what its accuracy is worth."""

if __name__ == "train":  # the short name, in a checkout
    from stageproof.checkout import one_module

    one_module(__name__)
