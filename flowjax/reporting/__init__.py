"""What a run leaves behind: figures, tables, one self-contained page, and the folder that keeps them."""
