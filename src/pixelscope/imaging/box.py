"""Rectangles of integer pixels."""

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
        """Return the number of pixels."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the slices of the rectangle in an array (H, W, ...)."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def centre_square(self) -> "Box":
        """Return the largest centred square."""
        side = min(self.width, self.height)
        return Box(self.left + (self.width - side) // 2, self.top + (self.height - side) // 2, side, side)

    def intersection(self, other: "Box") -> "Box":
        """Return the intersection; its area is 0 if the boxes do not overlap."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right = min(self.left + self.width, other.left + other.width)
        bottom = min(self.top + self.height, other.top + other.height)
        return Box(left, top, max(0, right - left), max(0, bottom - top))
