"""The few hot loops that rooms share: random signs, semi-orthogonal matrices, polar factors.

Each is one function with several forms behind it: plain torch operators, which run everywhere and
are what the others are compared with, and native code for the CPU.
"""
