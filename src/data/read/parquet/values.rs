//! Strings, decoded by the crate `parquet` some at a time.

use std::sync::{Arc, Mutex};

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;

use super::super::fault::damaged;
use super::super::sink::too_large;
use super::footer::TextColumn;
use super::guarded;
use super::levels::deltas;
use super::pages::{Data, Dictionary};
use crate::error::{Error, Result};

/// Strings that are decoded at a time. They point into the page or the dictionary.
const BATCH: u64 = 512;
/// Bytes of a length, as the crate holds those of a page.
const LENGTH: u64 = 4;

/// Where the crate gets its next page from.
#[derive(Clone, Default)]
struct PageSlot(Arc<Mutex<Option<Page>>>);

impl PageSlot {
    fn set(&self, page: Page) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(page);
    }
}

impl Iterator for PageSlot {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for PageSlot {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take())
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Ok(None)
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        Ok(())
    }
}

/// The strings of a column's part.
pub struct ChunkValues {
    reader: ColumnReaderImpl<ByteArrayType>,
    slot: PageSlot,
    has_dictionary: bool,
    /// What is decoded, and how many of it were given.
    decoded: Vec<ByteArray>,
    given: usize,
    /// Values of the page that are not decoded.
    left: u64,
    batch: u64,
}

impl ChunkValues {
    /// Of a column.
    pub fn new(column: &TextColumn) -> Self {
        let slot = PageSlot::default();
        Self {
            reader: ColumnReaderImpl::new(column.values.clone(), Box::new(slot.clone())),
            slot,
            has_dictionary: false,
            decoded: Vec::new(),
            given: 0,
            left: 0,
            batch: BATCH,
        }
    }

    /// Takes the dictionary.
    ///
    /// # Errors
    /// The dictionary is damaged, or the column chunk has one already.
    pub fn dictionary(&mut self, dictionary: Dictionary) -> Result<()> {
        if std::mem::replace(&mut self.has_dictionary, true) {
            return Err(damaged("a second dictionary"));
        }
        self.slot.set(Page::DictionaryPage {
            buf: dictionary.bytes,
            num_values: dictionary.strings,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        });
        // The crate takes it in when it looks for a page.
        self.load()
    }

    fn load(&mut self) -> Result<()> {
        guarded(|| self.reader.read_records(1, None, None, &mut self.decoded)).map(drop)
    }

    /// Takes a page with that many values; its lengths may take `buffer` bytes.
    ///
    /// # Errors
    /// The page is damaged.
    pub fn page(&mut self, page: &Data, values: u64, buffer: u64) -> Result<()> {
        self.decoded.clear();
        self.given = 0;
        self.left = values;
        self.batch = BATCH;
        // A page of nulls has no values, and some writers leave out what says how they are written.
        if values == 0 {
            return Ok(());
        }
        match page.encoding {
            Encoding::PLAIN => {}
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if self.has_dictionary => {}
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
                return Err(damaged("it refers to a dictionary that the column does not have"));
            }
            Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY => {
                if values.saturating_mul(LENGTH) > buffer {
                    return Err(too_large(format!("a page of {values} lengths"), buffer));
                }
                let at = deltas(&page.content, values)?;
                if page.encoding == Encoding::DELTA_BYTE_ARRAY {
                    deltas(&page.content[at..], values)?;
                    // Each string is put together on its own, and may be as long as all of them.
                    self.batch = 1;
                }
            }
            encoding => return Err(damaged(format!("strings of the encoding {encoding}"))),
        }
        let num_values = u32::try_from(values).map_err(|_| damaged("its values are damaged"))?;
        self.slot.set(Page::DataPage {
            buf: page.content.clone(),
            num_values,
            encoding: page.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        });
        Ok(())
    }

    /// The next value of the page.
    ///
    /// # Errors
    /// The page has no further value, or is damaged.
    pub fn next(&mut self) -> Result<&[u8]> {
        if self.given == self.decoded.len() {
            self.decoded.clear();
            self.given = 0;
            let count = self.left.min(self.batch);
            let decode = || {
                self.reader
                    .read_records(count as usize, None, None, &mut self.decoded)
            };
            let (_, values, _) = guarded(decode)?;
            if values as u64 != count || count == 0 {
                return Err(damaged("its values end too early"));
            }
            self.left -= count;
        }
        self.given += 1;
        (self.decoded.get(self.given - 1))
            .map(ByteArray::data)
            .ok_or_else(|| Error::internal("a value"))
    }
}
