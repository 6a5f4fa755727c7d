"""The kernels: softmax-weighted moments of a data set, and the commands that measure and compile them."""
