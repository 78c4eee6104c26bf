"""Images: finding, reading and preparing them."""

from repvgg.data.images import IMAGE_SUFFIXES, decode_image, find_images, load_image, prepare_image, read_batch

__all__ = ["IMAGE_SUFFIXES", "decode_image", "find_images", "load_image", "prepare_image", "read_batch"]
