"""From an architecture to a Keras model and back: building, saving, recovering and walking through models."""
