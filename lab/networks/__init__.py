"""Small picture classifiers of several families: surrogates for training the defence, and judges excluded from it."""
