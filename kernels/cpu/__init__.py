"""Kernels for the CPU, compiled by numba. To read: ``naive``, then ``pack``, then ``kernels``.

``kernels`` is what the registry knows; each name below is a module, in the order in which one
calls the next. What a product takes depends on the vectors that the processor has.

The packed product, ``xnor-cpu``, counts ones of xored words:
    ``sliced``, ``chains``, ``slices``: look-ups and bit-sliced counters (AVX-512 VBMI and GFNI);
    ``tabled``, ``nibbles``: tables of 16 (AVX2);
    ``xnor``, ``tile``, ``counts``: popcounts (AVX-512, NEON, and few rows anywhere).
3x3 convolutions of packed maps:
    ``conv``, then ``conv_sliced``, ``conv_tabled`` or ``conv_counts`` likewise; ``borders``.
8-bit pixels times ±1, the first layer:
    ``pixels``, then ``picks64`` (VBMI) or ``picks`` (AVX2);
    ``pixels_conv``, ``pixels_vnni``: the first convolution.
Real numbers times ±1, training's backward products and BinaryConnect's (``precision: fast``):
    ``signed``, ``signed_conv``, ``signed_update``: a linear layer, a convolution, a layer's update;
    ``pooled``, ``pooled_filters``, ``pooled_input``, ``columns``: behind max-pooling;
    ``sums``, then ``permuted``, ``gather512``, ``compress`` (AVX-512) or ``lookup``, ``gather``.
The rest of a training step:
    ``norm``, ``norm_backward``: batch norm and activation; ``steps``: optimizers and signs;
    ``draws``: torch's random numbers, and signs drawn by them.
What all share:
    ``pack``: signs and thresholds to words; ``vectors``, ``octets``: instructions by hand;
    ``jit``, ``threads``, ``pages``: numba's cache, threads, memory for large results;
    ``shares``: a task's part of the whole, and memory of its own.
Measured and counted:
    ``peaks``: what an instruction gives at most; ``asm``: a tile's instructions on a processor.
"""
