"""The evaluation of a run on people it was not trained on."""
