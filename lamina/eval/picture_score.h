// How far apart pictures are, one by one or as two crowds.
#pragma once

#include <vector>

#include "lamina/tensor/tensor.h"

namespace lamina {

// Mean squared error of two tensors of one shape.
double mean_square_error(const Tensor& a, const Tensor& b);
// Decibels, of pixels in [-1, 1]: 10 log10(4 / mse). Infinite where they are equal.
double psnr(const Tensor& a, const Tensor& b);
// The same, picture by picture, of two sets [pictures, 3, height, width].
std::vector<double> psnr_of_each(const Tensor& a, const Tensor& b);

// Frechet's distance between two normal distributions with the means and covariances of two sets of features,
// [pictures, width] each (Heusel et al., 2017): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64, the
// root by eigenvalues of C1^(1/2) C2 C1^(1/2). It depends on the number of pictures: the distance between two
// sets of real ones of the same number is its floor. Throws Error below two pictures.
double frechet_distance(const Tensor& a, const Tensor& b);

}  // namespace lamina
