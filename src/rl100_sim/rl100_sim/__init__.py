"""A MuJoCo robot behind the topics of a real one, its scripted teleoperator and labeller.

The core (:mod:`scene`, :mod:`robot`, :mod:`camera`, :mod:`world`, :mod:`expert`) needs MuJoCo and
NumPy only; the ROS nodes are thin shells around it.
"""
