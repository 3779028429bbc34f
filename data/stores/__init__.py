"""Stores of prepared frames, in forms that trade size for speed.

    form        one frame is                                    reading it means
    raw         H x W x 3 bytes (flow: H x W x 2)               mapping the file
    i420        H x W x 3/2 bytes                               converting the crop
    jpeg        a JPEG image                                    decoding the image
    lmdb        the same in an LMDB that other tools can read   decoding the image
    tinyvideo   a packet of a small MPEG-4 video                decoding from the key frame before it

Each is a folder with `manifest.json` (`manifest.py`) and, except for `lmdb`, shards of clips (`shards.py`). All are
built by `build.py` and read through `data.stores.protocol.FrameStore`.
"""
