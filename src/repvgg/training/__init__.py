"""Training on one's own images: recipes, a run that nothing interrupts for good, and a network proved in both forms.

`repvgg.training.run.train` is the entrance. Nothing is imported here, so that recipes are at hand without Keras.
"""
