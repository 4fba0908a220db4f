//! Sessions on the simulator.
