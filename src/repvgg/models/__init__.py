"""From a name or an architecture to a Keras model and back: variants, cost, building, saving, recovering."""
