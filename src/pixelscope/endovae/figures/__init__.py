"""The figures of EndoVAE, and the sections of the report that hold them.

Each figure is a function from plain values to a matplotlib figure; `sections` reads a run folder and calls them.
"""

from pixelscope.endovae.figures.capacity import layer_bars as layer_bars
from pixelscope.endovae.figures.curves import loss_panels as loss_panels
from pixelscope.endovae.figures.findings import kinds_panels as kinds_panels
from pixelscope.endovae.figures.findings import region_bars as region_bars
from pixelscope.endovae.figures.findings import size_panel as size_panel
from pixelscope.endovae.figures.findings import spectra_panels as spectra_panels
from pixelscope.endovae.figures.galleries import classes_gallery as classes_gallery
from pixelscope.endovae.figures.galleries import generated_gallery as generated_gallery
from pixelscope.endovae.figures.galleries import interpolation_gallery as interpolation_gallery
from pixelscope.endovae.figures.galleries import progress_gallery as progress_gallery
from pixelscope.endovae.figures.galleries import reconstruction_gallery as reconstruction_gallery
from pixelscope.endovae.figures.galleries import traversal_gallery as traversal_gallery
from pixelscope.endovae.figures.galleries import versions_gallery as versions_gallery
from pixelscope.endovae.figures.latent import divergence_bars as divergence_bars
from pixelscope.endovae.figures.sections import sections as sections
from pixelscope.endovae.figures.stages import stages_figure as stages_figure
