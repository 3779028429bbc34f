"""One module per layout: each reads a folder into a `Listing` without opening a video, and recognises its layout."""
