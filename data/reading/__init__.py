"""Reading frames from videos, images and databases."""
