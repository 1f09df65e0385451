"""Operations on pixels: arrays in, arrays out."""
