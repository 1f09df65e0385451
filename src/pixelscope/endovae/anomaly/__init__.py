"""How unusual a frame is, judged by what a model of healthy frames makes of it. For research only, never a diagnosis."""
