"""From training form to deploy form, and what a conversion has to pass before anybody gets its result."""

from repvgg.conversion.reparameterization import reparameterize, switch_to_deploy

__all__ = ["reparameterize", "switch_to_deploy"]
