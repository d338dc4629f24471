"""Turns model files of other formats into folders as the hub lays them out. Needs Python and NumPy alone.

    python -m convert llama MODEL.gguf FOLDER
    python -m convert bert SAVED_MODEL FOLDER
"""
