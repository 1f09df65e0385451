"""The figures of PixelDA and its baseline, and the sections of the report that hold them.

Each figure is a function from plain values to a matplotlib figure; `sections` reads a run folder and calls them.
"""

from pixelscope.pixelda.figures.classes import class_accuracies as class_accuracies
from pixelscope.pixelda.figures.classes import confusion_matrices as confusion_matrices
from pixelscope.pixelda.figures.curves import baseline_curves as baseline_curves
from pixelscope.pixelda.figures.curves import training_panels as training_panels
from pixelscope.pixelda.figures.galleries import adapted_gallery as adapted_gallery
from pixelscope.pixelda.figures.galleries import pairs_gallery as pairs_gallery
from pixelscope.pixelda.figures.galleries import progress_gallery as progress_gallery
from pixelscope.pixelda.figures.galleries import styles_gallery as styles_gallery
from pixelscope.pixelda.figures.sections import sections as sections
from pixelscope.pixelda.figures.stability import stability_panels as stability_panels
