"""Fused, threaded processor kernels of one analysis step and of its adjoint.

Both walk over tiles of rows that stay in the inner caches: all axes of a tile are filtered before the
next tile is read, so main memory is read once and written once, and the temporaries of a thread are some
hundred kilobytes whatever the size of the tensor.

One primitive, `_combine`, carries both directions: with a signal split into its even and its odd samples,
or with a pair of sub-bands, it computes ``y_p[i] = Σ_u m[p, 0, u] a[i + u] + m[p, 1, u] d[i + u]`` for the
two outputs p. What differs is only how rows are found (tables), split before and interleaved after.

The loops count in unsigned integers and index flat arrays: signed indices may be negative in Python's
sense, and the test for it would keep the compiler from using vector instructions. Constants are passed as
`int64`: a literal argument would have the callee compiled once more for its value.
"""
# mypy: ignore-errors

from __future__ import annotations

from typing import no_type_check  # a wrapper of run-time type checks could not be compiled

from numba import int64, njit, uint64


def _jit(function):
    """Compiled without the interpreter lock; kept on disk where there is a folder to write to."""
    options = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write: compiled once per process
        return njit(**options)(function)


@no_type_check
@_jit
def _combine(outputs, place, streams, offsets, stride, m, extent):
    """``y_p[at + r sy + i] = Σ_u m[p, 0, u] a[at_a[u] + r sa + i] + m[p, 1, u] d[at_d[u] + r sa + i]``.

    The arguments are (y_0, y_1), (at, sy), (a, d), (at_a, at_d), sa, m, and how far (r, i) run. Up to four
    positions u are taken in one pass over the rows.
    """
    q = m.shape[2]
    at, (a, d), (at_a, at_d) = place[0], streams, offsets
    z0, z1 = outputs[0][at:], outputs[1][at:]
    sy, sa, rows, n = uint64(place[1]), uint64(stride), uint64(extent[0]), uint64(extent[1])
    u = 0
    while u < q:
        fresh, left = u == 0, q - u
        a0, d0 = a[at_a[u] :], d[at_d[u] :]
        e0, f0, g0, h0 = m[0, 0, u], m[0, 1, u], m[1, 0, u], m[1, 1, u]
        if left == 1:
            for r in range(rows):
                k, j = r * sy, r * sa
                if fresh:
                    for i in range(n):
                        z0[k + i] = e0 * a0[j + i] + f0 * d0[j + i]
                        z1[k + i] = g0 * a0[j + i] + h0 * d0[j + i]
                else:
                    for i in range(n):
                        z0[k + i] += e0 * a0[j + i] + f0 * d0[j + i]
                        z1[k + i] += g0 * a0[j + i] + h0 * d0[j + i]
            break
        a1, d1 = a[at_a[u + 1] :], d[at_d[u + 1] :]
        e1, f1, g1, h1 = m[0, 0, u + 1], m[0, 1, u + 1], m[1, 0, u + 1], m[1, 1, u + 1]
        if left == 2:
            for r in range(rows):
                k, j = r * sy, r * sa
                if fresh:
                    for i in range(n):
                        s, t, v, w = a0[j + i], d0[j + i], a1[j + i], d1[j + i]
                        z0[k + i] = e0 * s + f0 * t + e1 * v + f1 * w
                        z1[k + i] = g0 * s + h0 * t + g1 * v + h1 * w
                else:
                    for i in range(n):
                        s, t, v, w = a0[j + i], d0[j + i], a1[j + i], d1[j + i]
                        z0[k + i] += e0 * s + f0 * t + e1 * v + f1 * w
                        z1[k + i] += g0 * s + h0 * t + g1 * v + h1 * w
            break
        a2, d2 = a[at_a[u + 2] :], d[at_d[u + 2] :]
        e2, f2, g2, h2 = m[0, 0, u + 2], m[0, 1, u + 2], m[1, 0, u + 2], m[1, 1, u + 2]
        if left == 3:
            for r in range(rows):
                k, j = r * sy, r * sa
                if fresh:
                    for i in range(n):
                        s, t, v, w, x, y = a0[j + i], d0[j + i], a1[j + i], d1[j + i], a2[j + i], d2[j + i]
                        z0[k + i] = (e0 * s + f0 * t + e1 * v) + (f1 * w + e2 * x + f2 * y)
                        z1[k + i] = (g0 * s + h0 * t + g1 * v) + (h1 * w + g2 * x + h2 * y)
                else:
                    for i in range(n):
                        s, t, v, w, x, y = a0[j + i], d0[j + i], a1[j + i], d1[j + i], a2[j + i], d2[j + i]
                        z0[k + i] += (e0 * s + f0 * t + e1 * v) + (f1 * w + e2 * x + f2 * y)
                        z1[k + i] += (g0 * s + h0 * t + g1 * v) + (h1 * w + g2 * x + h2 * y)
            break
        a3, d3 = a[at_a[u + 3] :], d[at_d[u + 3] :]
        e3, f3, g3, h3 = m[0, 0, u + 3], m[0, 1, u + 3], m[1, 0, u + 3], m[1, 1, u + 3]
        for r in range(rows):
            k, j = r * sy, r * sa
            if fresh:
                for i in range(n):
                    s, t, v, w = a0[j + i], d0[j + i], a1[j + i], d1[j + i]
                    x, y, o, p = a2[j + i], d2[j + i], a3[j + i], d3[j + i]
                    z0[k + i] = (e0 * s + f0 * t + e1 * v + f1 * w) + (e2 * x + f2 * y + e3 * o + f3 * p)
                    z1[k + i] = (g0 * s + h0 * t + g1 * v + h1 * w) + (g2 * x + h2 * y + g3 * o + h3 * p)
            else:
                for i in range(n):
                    s, t, v, w = a0[j + i], d0[j + i], a1[j + i], d1[j + i]
                    x, y, o, p = a2[j + i], d2[j + i], a3[j + i], d3[j + i]
                    z0[k + i] += (e0 * s + f0 * t + e1 * v + f1 * w) + (e2 * x + f2 * y + e3 * o + f3 * p)
                    z1[k + i] += (g0 * s + h0 * t + g1 * v + h1 * w) + (g2 * x + h2 * y + g3 * o + h3 * p)
        u += 4


@no_type_check
@_jit
def _window(table, step, i, source, m, offsets, masked):
    """Finds the sources of output `i`: their offsets, and the taps with those on zeros put out.

    Entry p of the table stands for ``source[0] + p source[1]``.
    With `step` 2 the streams a and d are the even and the odd entries of the table, with 1 both are the
    same entries. An entry ``~p`` is a zero beyond the border next to sample p; reading p instead keeps
    the address valid, and a NaN within the reach of the filter.
    """
    for u in range(m.shape[2]):
        for c in range(2):
            entry = table[step * (i + u) + (step - 1) * c]
            kept = entry >= 0
            offset = source[0] + (entry if kept else ~entry) * source[1]
            if c == 0:
                offsets[0][u] = offset
            else:
                offsets[1][u] = offset
            for p in range(2):
                masked[p, c, u] = m[p, c, u] if kept else 0.0


@no_type_check
@_jit
def _filter_rows(outputs, place, streams, axis, source, span, m, scratch):
    """Some outputs across rows: `span` gives the first, how many, and the samples of a row.

    `axis` is (table, step, inner): the outputs ``inner[0] … inner[1]`` have evenly spaced sources and are
    done in one go. `source` is as in `_window`.
    """
    (table, step, inner), (i0, rows, n), (offsets, masked) = axis, span, scratch
    i = i0
    while i < i0 + rows:
        count = int64(1)
        if inner[0] <= i < inner[1]:
            count = min(inner[1], i0 + rows) - i
        _window(table, step, i, source, m, offsets, masked)
        to = place[0] + (i - i0) * place[1], place[1]
        _combine(outputs, to, streams, offsets, step * source[1], masked, (count, n))
        i += count


@no_type_check
@_jit
def _split(e, layout, x, place, table, start, extent):
    """Even and odd samples of rows, borders included: to ``e[r stride + u]``, ``e[odd + r stride + u]``.

    The arguments are e, (odd, stride), x, (first sample, distance of rows), the table and start of the
    axis, and how many rows, samples and pairs.
    """
    (odd, stride), (at, sx), (rows, size, pairs) = layout, place, extent
    first, last = (start + 1) // 2, min((size + start) // 2, pairs)
    if last <= first:
        first = last = pairs
    z0, z1, s = e[first:], e[odd + first :], x[at + 2 * first - start :]
    for r in range(uint64(rows)):
        k, j = r * uint64(stride), r * uint64(sx)
        for i in range(uint64(last - first)):
            z0[k + i] = s[j + i + i]
            z1[k + i] = s[j + i + i + uint64(1)]
    for r in range(rows):
        for border in range(2):
            for u in range(last * border, pairs if border else first):
                for c in range(2):
                    source = table[2 * u + c]
                    e[c * odd + r * stride + u] = x[at + r * sx + source] if source >= 0 else 0.0


@no_type_check
@_jit
def _interleave(x, place, size, shift, e, layout, rows):
    """Rows of `size` samples from their even and their odd ones; a `shift` of 1 rotates them back by one.

    `place` is as in `_split`; `layout` is (where the odd ones begin, pairs of a row).
    """
    (at, sx), (odd, pairs) = place, layout
    whole = size // 2 - shift
    z0, z1, s = e[shift:], e[odd + shift :], x[at + shift :]
    for r in range(uint64(rows)):
        k, j = r * uint64(pairs), r * uint64(sx)
        for i in range(uint64(whole)):
            s[j + i + i] = z0[k + i]
            s[j + i + i + uint64(1)] = z1[k + i]
    for r in range(rows):
        if shift == 1:  # the first pair wraps around
            x[at + r * sx + size - 1] = e[r * pairs]
            x[at + r * sx] = e[odd + r * pairs]
        elif size % 2:
            x[at + r * sx + size - 1] = e[r * pairs + pairs - 1]


@no_type_check
@_jit
def analyse(x, bands, tasks, geometry, axes, m, shape, scratch):
    """Some tasks of an analysis; a task is a tile of output rows of one output plane.

    Parameters
    ----------
    x : flat array, (batch, *sizes)
    bands : 8 flat arrays, each (batch, *counts); with `ndim` < 3 only the first ones are used
    tasks : the first, and one past the last
    geometry : samples and coefficients along three axes; unused axes have 1 or count as rows
    axes : three tables with the source of each extended position; the first and one past the last row
        output whose window lies inside the signal; how far the first window reaches before sample 0
    m : (2 channels, 2 parities, taps)
    shape : `ndim`, and the rows of a task
    scratch : memory for temporaries: samples, two arrays of one integer a tap, an array as `m`
    """
    (depth, height, width), (d, h, w) = geometry
    (tables, inner, start), (ndim, tile), (work, at_a, at_d, masked) = axes, shape, scratch
    at = at_a, at_d
    q, zero, one = m.shape[2], int64(0), int64(1)
    ext, plane, line = w + q - 1, (tile + q - 1) * width, tile * width
    split = work  # [parity][row]
    lines = split[2 * tile * ext :]  # [channel][row]
    planes = lines[2 * line :]  # [channel][parity of the row][row]
    tiles = (h + tile - 1) // tile
    for task in range(tasks[0], tasks[1]):
        k, i0, b = task % d, task // d % tiles * tile, task // (d * tiles)
        rows = min(tile, h - i0)
        volume = b * depth * height * width
        if ndim == 3:
            _window(tables[0], int64(2), k, (volume, height * width), m, at, masked)
            for parity in range(2):
                j = 0
                while j < rows + q - 1:
                    e = 2 * (i0 + j) + parity
                    to, source, run = parity * plane + j * width, tables[1][e], 1
                    if source < 0:
                        for i in range(width):
                            planes[to + i] = planes[2 * plane + to + i] = 0.0
                    else:
                        while j + run < rows + q - 1 and tables[1][e + 2 * run] == source + 2 * run:
                            run += 1
                        s = x[source * width :]
                        pair = planes, planes[2 * plane :]
                        _combine(pair, (to, width), (s, s), at, 2 * width, masked, (run, width))
                    j += run
        both = lines, lines[line:]
        for c in range(2 if ndim == 3 else 1):
            if ndim == 3:
                for u in range(q):
                    at_a[u] = 2 * c * plane + u * width
                    at_d[u] = at_a[u] + plane
                _combine(both, (zero, zero), (planes, planes), at, zero, m, (one, rows * width))
            elif ndim == 2:
                axis, span = (tables[1], int64(2), inner), (i0, rows, width)
                _filter_rows(both, (zero, width), (x, x), axis, (volume, width), span, m, (at, masked))
            layout = tile * ext, ext
            for s in range(2 if ndim > 1 else 1):
                if ndim > 1:
                    _split(split, layout, lines, (s * line, width), tables[2], start, (rows, width, ext))
                else:
                    _split(split, layout, x, (i0 * width, width), tables[2], start, (rows, width, ext))
                for u in range(q):
                    at_a[u] = u
                    at_d[u] = tile * ext + u
                band = 4 * c + 2 * s
                to = ((b * d + k) * h + i0) * w, w
                _combine((bands[band], bands[band + 1]), to, (split, split), at, ext, m, (rows, w))


@no_type_check
@_jit
def synthesise(x, bands, tasks, geometry, axes, m, shape, scratch):
    """Some tasks of the adjoint; a task is a tile of row pairs of one pair of output planes.

    Parameters as `analyse`, but

    geometry : also the pairs of samples to compute along each axis
    axes : in place of the last, the coefficient that the first pair is aligned with, and 1 if the first
        pair begins one sample before the first
    """
    (depth, height, width), (d, h, w), pairs = geometry
    (tables, inner, lead, shift), (ndim, tile), (work, at_a, at_d, masked) = axes, shape, scratch
    at = at_a, at_d
    q, zero, one = m.shape[2], int64(0), int64(1)
    ext, plane, line, margin = pairs[2] + q - 1, (tile + q - 1) * w, tile * (pairs[2] + q - 1), q - 1 - lead
    woven = work  # [phase][row]
    lines = woven[2 * tile * pairs[2] :]  # [phase][column channel][row]
    planes = lines[4 * line :]  # [phase][row channel][column channel][row]
    tiles = (pairs[1] + tile - 1) // tile
    for task in range(tasks[0], tasks[1]):
        k, i0, b = task % pairs[0], task // pairs[0] % tiles * tile, task // (pairs[0] * tiles)
        rows = min(tile, pairs[1] - i0)
        volume = b * d * h * w
        if ndim == 3:
            _window(tables[0], one, k, (volume, h * w), m, at, masked)
            j = 0
            while j < rows + q - 1:
                source, run = tables[1][i0 + j], 1
                if source >= 0:
                    while j + run < rows + q - 1 and tables[1][i0 + j + run] == source + run:
                        run += 1
                for s in range(4):
                    to = s * plane + j * w
                    if source < 0:
                        for i in range(w):
                            planes[to + i] = planes[4 * plane + to + i] = 0.0
                    else:
                        pair = planes, planes[4 * plane :]
                        streams = bands[s][source * w :], bands[4 + s][source * w :]
                        _combine(pair, (to, zero), streams, at, zero, masked, (one, run * w))
                j += run
        for p in range(2 if ndim == 3 else 1):
            z = 2 * k + p - shift if ndim == 3 else 0
            if z < 0:
                z += depth
            if z >= depth:
                continue
            both = lines, lines[2 * line :]
            for s in range(2):
                to = s * line + margin
                if ndim == 3:
                    for u in range(q):
                        at_a[u] = (4 * p + s) * plane + u * w
                        at_d[u] = at_a[u] + 2 * plane
                    _combine(both, (to, ext), (planes, planes), at, w, m, (rows, w))
                elif ndim == 2:
                    axis, streams = (tables[1], one, inner), (bands[s], bands[2 + s])
                    _filter_rows(both, (to, ext), streams, axis, (volume, w), (i0, rows, w), m, (at, masked))
                else:
                    for r in range(rows):
                        row, source = lines[to + r * ext :], bands[s][(i0 + r) * w :]
                        for i in range(w):
                            row[i] = source[i]
            for g in range(2 if ndim > 1 else 1):
                for s in range(2):
                    for r in range(rows):
                        row = lines[(2 * g + s) * line + r * ext :]
                        for border in range(2):
                            for u in range((margin + w) * border, ext if border else margin):
                                source = tables[2][u]
                                row[u] = row[margin + source] if source >= 0 else 0.0
                for u in range(q):
                    at_a[u] = 2 * g * line + u
                    at_d[u] = at_a[u] + line
                layout = tile * pairs[2], pairs[2]
                halves = woven, woven[layout[0] :]
                _combine(halves, (zero, pairs[2]), (lines, lines), at, ext, m, (rows, pairs[2]))
                if ndim == 1:
                    _interleave(x, (i0 * width, width), width, shift, woven, layout, rows)
                    continue
                page = (b * depth + z) * height
                done = 0
                if shift == 1 and i0 == 0 and g == 0:  # the first row pair wraps around
                    _interleave(x, ((page + height - 1) * width, zero), width, shift, woven, layout, one)
                    done = 1
                y = 2 * (i0 + done) + g - shift
                count = min(rows - done, (height - y + 1) // 2)
                if count > 0:
                    to = (page + y) * width, 2 * width
                    _interleave(x, to, width, shift, woven[done * pairs[2] :], layout, count)
