//! Matrix products over borrowed slices: the one place that calls the `gemm` kernels.
//!
//! `gemm` takes raw pointers, so this module holds the crate's only `unsafe` block. The view
//! types check on construction that every element they can name lies inside their slice; the
//! call is then sound whatever the shapes. Single-threaded on purpose: the trainer splits the
//! batch by hand so that the order of every sum is fixed.
#![expect(unsafe_code, reason = "gemm's kernels take raw pointers; the views prove the bounds")]

/// A read-only strided matrix.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    shape: Shape,
}

/// A writable strided matrix.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    shape: Shape,
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// What happens to the numbers that are already in the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    /// They are replaced.
    Replace,
    /// The product is added to them.
    Add,
}

impl Shape {
    /// # Panics
    /// If some element would lie outside `len` numbers; soundness rests on this check.
    fn checked(rows: usize, cols: usize, row_stride: usize, len: usize) -> Self {
        let fits = rows == 0
            || cols == 0
            || (rows - 1)
                .checked_mul(row_stride)
                .and_then(|last_row| last_row.checked_add(cols))
                .is_some_and(|end| end <= len);
        assert!(fits, "a {rows}x{cols} view with stride {row_stride} does not fit {len} numbers");
        Self { rows, cols, row_stride, col_stride: 1 }
    }
}

impl<'a> Mat<'a> {
    /// Rows of `cols` numbers that lie side by side.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows of `cols` numbers whose starts are `row_stride` apart.
    #[must_use]
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, shape: Shape::checked(rows, cols, row_stride, data.len()) }
    }

    /// The transpose; swapping strides keeps every element inside the slice.
    #[must_use]
    pub fn t(self) -> Self {
        let Shape { rows, cols, row_stride, col_stride } = self.shape;
        let shape = Shape { rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride };
        Self { data: self.data, shape }
    }
}

impl<'a> MatMut<'a> {
    /// Rows of `cols` numbers that lie side by side.
    #[must_use]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows of `cols` numbers whose starts are `row_stride` apart; rows must not overlap.
    ///
    /// # Panics
    /// If they overlap or do not fit.
    #[must_use]
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows <= 1 || row_stride >= cols, "rows of a destination overlap");
        let shape = Shape::checked(rows, cols, row_stride, data.len());
        Self { data, shape }
    }
}

/// `dst = scale * a * b`, or the same added to `dst`.
///
/// # Panics
/// If the inner or outer dimensions differ.
pub fn matmul(dst: MatMut<'_>, store: Store, scale: f32, a: Mat<'_>, b: Mat<'_>) {
    let (d, l, r) = (dst.shape, a.shape, b.shape);
    assert!(d.rows == l.rows && d.cols == r.cols && l.cols == r.rows, "shapes do not agree");
    if d.rows == 0 || d.cols == 0 {
        return;
    }
    // SAFETY: `Shape::checked` proved that every (row, col) of the three views is inside its
    // slice; `dst` is borrowed mutably, so it aliases neither operand, and its rows are disjoint.
    unsafe {
        gemm::gemm(
            d.rows,
            d.cols,
            l.cols,
            dst.data.as_mut_ptr(),
            d.col_stride.cast_signed(),
            d.row_stride.cast_signed(),
            store == Store::Add,
            a.data.as_ptr(),
            l.col_stride.cast_signed(),
            l.row_stride.cast_signed(),
            b.data.as_ptr(),
            r.col_stride.cast_signed(),
            r.row_stride.cast_signed(),
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_agree_with_the_definition_for_strided_and_transposed_views() {
        let a: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..12).map(|i| (i * i % 7) as f32 - 2.0).collect();
        // a: 3x2 inside rows of 4; b transposed from 5x2 stored with stride 2.
        let mut out = vec![1.0f32; 15];
        let left = Mat::strided(&a, 3, 2, 4);
        let right = Mat::new(&b[..10], 5, 2).t();
        matmul(MatMut::new(&mut out, 3, 5), Store::Add, 0.5, left, right);
        for i in 0..3 {
            for j in 0..5 {
                let want: f32 = (0..2).map(|k| a[i * 4 + k] * b[j * 2 + k]).sum::<f32>() * 0.5 + 1.0;
                assert!((out[i * 5 + j] - want).abs() < 1e-5, "{i},{j}: {} {want}", out[i * 5 + j]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_view_past_its_slice_is_refused() {
        let _ = Mat::strided(&[0.0; 10], 3, 2, 5);
    }
}
