"""What is known of a network, gathered once as data; a page and a model card are made of it."""
