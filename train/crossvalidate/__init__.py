"""k-fold cross-validation: each patient is predicted by the network of the fold that held them out."""
