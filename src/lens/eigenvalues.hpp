#pragma once

#include <complex>
#include <cstddef>
#include <vector>

namespace manyheads::lens {

// The n eigenvalues of a real n x n matrix, row-major, in no promised order: Hessenberg form by Householder
// reflections, then the shifted QR algorithm (Golub & Van Loan, Matrix Computations, 7.4 and 7.5). Cost: about 25 n^3.
// Throws Error where the matrix is not finite, or a value does not settle.
std::vector<std::complex<double>> eigenvalues(std::vector<double> matrix, std::size_t n);

}  // namespace manyheads::lens
