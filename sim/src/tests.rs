mod schedule;
mod vendor;
mod xmodel;
