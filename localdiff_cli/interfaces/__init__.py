"""How other tools learn about ours: Boutiques and 3D Slicer descriptors made from the command line's own options, a nipype
interface."""
