//! Things that outlive a reload, found by their name in the file: one instance per named thing, never per route.
//!
//! A reload first *prepares* what the new file names, reusing what is unchanged, and *keeps* it only when the whole
//! file turned out good; so a reload that fails leaves no trace.

use std::{collections::HashSet, convert::Infallible, sync::Arc};

use dashmap::DashMap;

/// One thing as the file describes it.
#[derive(Debug)]
pub struct Named<C, T> {
    /// Name in the file.
    pub name: Box<str>,
    /// Its description; an equal one reuses the instance.
    pub config: C,
    /// The instance.
    pub thing: Arc<T>,
}

impl<C: Clone, T> Clone for Named<C, T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            config: self.config.clone(),
            thing: Arc::clone(&self.thing),
        }
    }
}

/// The instances in use. Bounded by the file: it holds what the last good one names and nothing else.
#[derive(Debug)]
pub struct Registry<C, T> {
    held: DashMap<Box<str>, (C, Arc<T>)>,
}

impl<C, T> Default for Registry<C, T> {
    fn default() -> Self {
        Self {
            held: DashMap::new(),
        }
    }
}

impl<C: Clone + PartialEq, T> Registry<C, T> {
    /// The instance in use when its description is unchanged, else a fresh one that is not in use yet.
    pub fn prepare(&self, name: &str, config: C, make: impl FnOnce(&C) -> T) -> Named<C, T> {
        let make = |config: &C| Ok::<T, Infallible>(make(config));
        match self.try_prepare(name, config, make) {
            Ok(named) => named,
            Err(never) => match never {},
        }
    }

    /// The same for what cannot be made of every description.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_prepare<E>(
        &self,
        name: &str,
        config: C,
        make: impl FnOnce(&C) -> Result<T, E>,
    ) -> Result<Named<C, T>, E> {
        let same = self
            .held
            .get(name)
            .filter(|held| held.0 == config)
            .map(|held| Arc::clone(&held.1));
        let thing = match same {
            Some(thing) => thing,
            None => Arc::new(make(&config)?),
        };
        Ok(Named {
            thing,
            name: name.into(),
            config,
        })
    }

    /// Puts exactly these to use.
    pub fn keep(&self, all: &[Named<C, T>]) {
        let names: HashSet<&str> = all.iter().map(|named| &*named.name).collect();
        self.held.retain(|name, _| names.contains(&**name));
        for named in all {
            self.held.insert(
                named.name.clone(),
                (named.config.clone(), Arc::clone(&named.thing)),
            );
        }
    }

    /// The instances in use.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.held.iter().map(|held| Arc::clone(&held.1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_descriptions_keep_their_instance_and_the_rest_goes() {
        let registry = Registry::default();
        let one = registry.prepare("one", 1, |c| *c);
        let two = registry.prepare("two", 2, |c| *c);
        registry.keep(&[one.clone(), two]);
        assert!(Arc::ptr_eq(
            &registry.prepare("one", 1, |c| *c).thing,
            &one.thing
        ));
        assert!(!Arc::ptr_eq(
            &registry.prepare("one", 5, |c| *c).thing,
            &one.thing
        ));
        let bad = registry.try_prepare("one", 6, |c| Err::<i32, i32>(*c));
        assert_eq!(bad.map(|named| named.thing), Err(6));
        registry.keep(&[one]);
        assert_eq!(registry.list().len(), 1);
    }
}
