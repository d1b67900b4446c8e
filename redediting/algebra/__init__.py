"""The editing maths: problem, kernel, solver, multiplier, certificate. Pure fp64 linear algebra.

Letters (columns are token states of width ``d``): ``C`` keys, ``C*`` targets, ``D = C* - C``,
``S`` weights, ``R`` softly retained columns, ``Z`` hard-retained directions, ``Λ`` penalty,
``λ`` ridge, ``η`` retain strength, ``N`` an orthonormal basis of null(Zᵀ), ``M`` the shared
multiplier with which every layer becomes ``W' = W (I + M)``.
"""

from redediting.algebra.certificate import Certificate
from redediting.algebra.multiplier import Multiplier, RowShift
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import solve

__all__ = ["Certificate", "EditProblem", "Multiplier", "RowShift", "solve"]
