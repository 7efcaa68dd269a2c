"""What a dataset of images needs, whichever trainer reads it.

A target chooses a canvas (`canvas`), settles its frames (`landmarks`, `parsing`), draws the images
on all cores (`images`), keeps the record (`record`), and proves what it wrote (`proof`,
`reprojection`). Only file names, axes and units are its own.
"""
