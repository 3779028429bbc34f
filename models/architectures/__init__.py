"""The architectures: each module defines the networks of one paper, or of a few that share their blocks.

A module holds a frozen configuration, the blocks, and a subclass of :class:`models.VideoModel` that is built from
checked :class:`models.ModelSettings`. It is imported only when one of its models is created: its cards, in a module of
:mod:`models.cards`, describe the models without torch and name the class as their builder.

- 3-D convolutions: `r3d` (R3D, MC3, R(2+1)D), `bottleneck_net` (CSN), `single_path` (Slow, C2D, I3D-ResNet),
  `slowfast`, `x3d`, `i3d_inception`, `s3d`, `s3d_resnet`;
- images of a clip, with or without temporal modules, on the base class in `frame_model`: `resnet2d`, `inception_v1`,
  `inception_v3`, `vgg`, `blvnet`;
- two streams, RGB and optical flow: `two_stream` (late fusion), `stmulnet`;
- transformers: `mvit`, `swin3d`.
"""
