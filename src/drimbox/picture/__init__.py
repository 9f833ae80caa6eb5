"""Charts as PNG pictures, drawn with numpy alone: no drawing library, no font file, the same on every machine."""
