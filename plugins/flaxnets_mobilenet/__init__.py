"""MobileNet V1, V2 and V3: networks of depthwise separable convolutions, a file each."""
