# cython: language_level=3, freethreading_compatible=True, cdivision=True, boundscheck=False
"""The Mandelbrot set as a grey picture, computed without the GIL."""

from libc.stdlib cimport free, malloc


cdef void fill(unsigned char *pixels, int size, double x, double y, double width,
               int iterations) noexcept nogil:
    cdef int row, column, n
    cdef double cr, ci, zr, zi, t
    for row in range(size):
        ci = y + (<double>row / size - 0.5) * width
        for column in range(size):
            cr = x + (<double>column / size - 0.5) * width
            zr = zi = 0.0
            n = 0
            while n < iterations and zr * zr + zi * zi <= 4.0:
                t = zr * zr - zi * zi + cr
                zi = 2.0 * zr * zi + ci
                zr = t
                n += 1
            pixels[row * size + column] = 0 if n == iterations else <unsigned char>(255 - n % 256)


def picture(int size, double x, double y, double width, int iterations=255):
    """``size`` × ``size`` pixels as a PGM file: the square of that width around x + yi.

    Raises ValueError for a size that is not 1 to 2048, or iterations that are not 1 to 10,000.
    """
    if not 1 <= size <= 2048 or not 1 <= iterations <= 10_000:
        raise ValueError("size: 1 to 2048, iterations: 1 to 10000")
    cdef unsigned char *pixels = <unsigned char *>malloc(<size_t>size * size)
    if pixels == NULL:
        raise MemoryError
    try:
        with nogil:
            fill(pixels, size, x, y, width, iterations)
        return b"P5 %d %d 255\n" % (size, size) + pixels[:size * size]
    finally:
        free(pixels)
