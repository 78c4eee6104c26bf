"""A network for others: the files of a repository on the Hugging Face hub, each of them proved, and their upload."""
