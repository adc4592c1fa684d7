"""Small picture classifiers of several families: surrogates that train the defence, and judges that never see it."""
