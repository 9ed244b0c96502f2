//! A canonical encoding that leaves out what no later step depends on: counters
//! by their fields' names, and how long ago a timer became due.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Encodes into bytes; see the module.
pub(super) struct Canonical {
    pub(super) bytes: Vec<u8>,
    /// Fields left out.
    pub(super) skip: &'static [&'static str],
    /// Whether every instant is in the past, and all of them the same.
    pub(super) timeless: bool,
}

type Done = Result<(), postcard::Error>;

impl Canonical {
    fn put(&mut self, bytes: &[u8]) -> Done {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn put_len(&mut self, len: Option<usize>) -> Done {
        self.put(&(len.unwrap_or_default() as u32).to_le_bytes())
    }
}

macro_rules! numbers {
    ($($method:ident $number:ty),+) => {
        $(fn $method(self, v: $number) -> Done { self.put(&v.to_le_bytes()) })+
    };
}

impl<'a> Serializer for &'a mut Canonical {
    type Ok = ();
    type Error = postcard::Error;
    type SerializeSeq = &'a mut Canonical;
    type SerializeTuple = &'a mut Canonical;
    type SerializeTupleStruct = &'a mut Canonical;
    type SerializeTupleVariant = &'a mut Canonical;
    type SerializeMap = &'a mut Canonical;
    type SerializeStruct = &'a mut Canonical;
    type SerializeStructVariant = &'a mut Canonical;

    numbers! {
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_i128 i128, serialize_u8 u8, serialize_u16 u16, serialize_u32 u32,
        serialize_u64 u64, serialize_u128 u128, serialize_f32 f32, serialize_f64 f64
    }

    fn serialize_bool(self, v: bool) -> Done {
        self.put(&[u8::from(v)])
    }

    fn serialize_char(self, v: char) -> Done {
        self.put(&u32::from(v).to_le_bytes())
    }

    fn serialize_str(self, v: &str) -> Done {
        self.serialize_bytes(v.as_bytes())
    }

    fn serialize_bytes(self, v: &[u8]) -> Done {
        self.put_len(Some(v.len()))?;
        self.put(v)
    }

    fn serialize_none(self) -> Done {
        self.put(&[0])
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Done {
        self.put(&[1])?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Done {
        self.put(&index.to_le_bytes())
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        value: &T,
    ) -> Done {
        if self.timeless && name == "Mono" {
            return Ok(());
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Done {
        self.put(&index.to_le_bytes())?;
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self, postcard::Error> {
        self.put_len(len)?;
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, postcard::Error> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, postcard::Error> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, postcard::Error> {
        self.put(&index.to_le_bytes())?;
        Ok(self)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self, postcard::Error> {
        self.put_len(len)?;
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, postcard::Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, postcard::Error> {
        self.put(&index.to_le_bytes())?;
        Ok(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! elements {
    ($($kind:ident $method:ident),+) => {
        $(impl $kind for &mut Canonical {
            type Ok = ();
            type Error = postcard::Error;

            fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Done {
                value.serialize(&mut **self)
            }

            fn end(self) -> Done {
                Ok(())
            }
        })+
    };
}

elements! {
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field
}

impl SerializeMap for &mut Canonical {
    type Ok = ();
    type Error = postcard::Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Done {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Done {
        value.serialize(&mut **self)
    }

    fn end(self) -> Done {
        Ok(())
    }
}

macro_rules! fields {
    ($($kind:ident),+) => {
        $(impl $kind for &mut Canonical {
            type Ok = ();
            type Error = postcard::Error;

            fn serialize_field<T: ?Sized + Serialize>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Done {
                if self.skip.contains(&key) {
                    return Ok(());
                }
                value.serialize(&mut **self)
            }

            fn end(self) -> Done {
                Ok(())
            }
        })+
    };
}

fields!(SerializeStruct, SerializeStructVariant);
