"""Training, calibration and evaluation of classifiers of brain-MRI slices, and audits of their datasets."""

if __name__ == "train":  # the short name, in a checkout
    from stageproof.checkout import one_module

    one_module(__name__)
