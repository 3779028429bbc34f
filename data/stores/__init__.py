"""Prepared frames in the form that suits the size of the set and the disk.

    form        one frame is                                    read by
    raw         H x W x 3 bytes (flow: H x W x 2)               mapping the file
    i420        H x W x 3/2 bytes                               converting the crop
    jpeg        a JPEG image                                    decoding the image
    lmdb        the same in an LMDB that others can read too    decoding the image
    tinyvideo   a packet of a small MPEG-4 video                decoding from the key frame before it

All are a folder with `manifest.json` (`manifest.py`) and, but for `lmdb`, shards of clips (`shards.py`); all are built
by `build.py` and read behind `data.stores.protocol.FrameStore`.
"""
