"""The engine: plans of Keras models, and files of them."""
