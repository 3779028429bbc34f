"""Loading model weights from files of this and other programs."""
