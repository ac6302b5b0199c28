//! Both ends of the link as pure state machines.
