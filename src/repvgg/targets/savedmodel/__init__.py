"""TensorFlow's SavedModel: written and run."""
