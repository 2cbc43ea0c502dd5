module fuse

go 1.19
