"""Rectangles of whole pixels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle in an image, in pixels from the top left corner."""

    left: int
    top: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Return the number of pixels inside."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return what cuts it out of an array (H, W, ...)."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def centre_square(self) -> "Box":
        """Return the largest square in its middle."""
        side = min(self.width, self.height)
        return Box(self.left + (self.width - side) // 2, self.top + (self.height - side) // 2, side, side)

    def intersection(self, other: "Box") -> "Box":
        """Return what both cover; a box without area where they do not meet."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right = min(self.left + self.width, other.left + other.width)
        bottom = min(self.top + self.height, other.top + other.height)
        return Box(left, top, max(0, right - left), max(0, bottom - top))
